"""Train on an env of your own, written in JAX: two agents on a line, who are paid for being close to each other.

python examples/own_jax_env.py
"""

import jax
import jax.numpy as jnp

import omad


def meet(horizon: int = 20) -> omad.JaxEnv:
    """Two pure functions and their sizes; an env never resets itself."""
    spec = omad.EnvSpec(name="meet", obs_dims=(2, 2), act_dims=(1, 1), state_dim=2, horizon=horizon)

    def look(places):
        return omad.Observation(obs=jnp.stack([places, places[::-1]]), state=places)

    def reset(key):
        places = jax.random.uniform(key, (2,), minval=-1.0)
        return (places, jnp.int32(0)), look(places)

    def step(state, action, key):
        places, time = state
        places = jnp.clip(places + 0.2 * jnp.clip(action[:, 0], -1, 1), -1, 1)
        reward = -jnp.abs(places[0] - places[1])
        over = time + 1 >= horizon
        outcome = omad.Outcome(look(places), reward, terminated=jnp.zeros_like(over), truncated=over)
        return (places, time + 1), outcome

    return omad.JaxEnv(spec, reset, step)


def main(run_dir=None, preset="cpu", **fields):
    """On the command line: omad train --task jax:own_jax_env:meet?horizon=20, from the folder of this file."""
    return omad.train(env=meet(), preset=preset, run_dir=run_dir, v_max=40.0, **fields)


if __name__ == "__main__":
    run = main(total_steps=20_000)
    print(run.path, run.evaluations()["return"])
