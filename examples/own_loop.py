"""Act with a trained team in a loop of your own, all agents in one call; for tasks in JAX.

A robot acts with `policy.agent(i)`, which takes its own observation alone and answers in the env's units.

python examples/own_loop.py RUN
"""

import sys

import jax

import omad


def main(path, episodes=3, which="best"):
    """Returns of a few episodes of the run's own task; each agent's action comes from its own observation alone."""
    run = omad.load_run(path)
    policy, env = run.policy(which=which), omad.envs.make(run.config.task)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    returns = []
    for episode in range(episodes):
        key = jax.random.key(episode)
        state, seen = reset(jax.random.fold_in(key, 0))
        total = 0.0
        for _ in range(env.spec.horizon):
            key, act_key, step_key = jax.random.split(key, 3)
            state, outcome = step(state, policy.act(seen.obs, act_key), step_key)
            total, seen = total + float(outcome.reward), outcome.next
            if outcome.terminated or outcome.truncated:
                break
        returns.append(total)
    return returns


if __name__ == "__main__":
    print(main(sys.argv[1]))
