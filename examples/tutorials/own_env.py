# %% [markdown]
# # Tutorial 2: an env of your own
#
# Two tugs push a barge to a berth. You write the rules in JAX, check them, train, read the metrics, and draw what was
# learned.
#
# The script is `examples/tutorials/own_env.py`. It takes about ten minutes on two cores.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import omad

# %% [markdown]
# ## Rules
#
# An env is two pure functions and its sizes. It never resets itself: `terminated` says that the task ended,
# `truncated` that the clock did, and values bootstrap behind the second only.
#
# - Agents write actions in [-1, 1]. Here each has one number: its thrust.
# - Each agent observes what it could measure on board. The critics may read more: `state`.
# - Observations near 1 in size, and rewards with a known bound, save a search over settings.


# %%
def tugs(horizon: int = 40) -> omad.JaxEnv:
    """A barge on a plane with a tug at each end: equal thrusts push it forward, unequal ones turn it."""
    spec = omad.EnvSpec(name="tugs", obs_dims=(6, 6), act_dims=(1, 1), state_dim=7, horizon=horizon)

    def look(state):
        heading = jnp.array([jnp.cos(state["angle"]), jnp.sin(state["angle"])])
        own = jnp.concatenate(
            [state["place"], heading, state["motion"]]
        )  # of the barge: place, heading, speed and turn
        whole = jnp.append(own, state["time"] / horizon)
        return omad.Observation(obs=jnp.stack([own, own]), state=whole)

    def reset(key):
        place, angle = jax.random.split(key)
        state = {
            "place": jax.random.uniform(place, (2,), minval=-1.0),  # the berth is the origin
            "angle": jax.random.uniform(angle, minval=-jnp.pi, maxval=jnp.pi),
            "motion": jnp.zeros(2),
            "time": jnp.int32(0),
        }
        return state, look(state)

    def step(state, action, key):
        left, right = jnp.clip(action[:, 0], -1.0, 1.0)
        speed, turn = 0.8 * state["motion"] + jnp.array([0.04 * (left + right), 0.2 * (right - left)])
        angle = state["angle"] + turn
        place = state["place"] + speed * jnp.array([jnp.cos(angle), jnp.sin(angle)])
        place = jnp.clip(place, -2.0, 2.0)
        now = {"place": place, "angle": angle, "motion": jnp.array([speed, turn]), "time": state["time"] + 1}
        reward = -jnp.linalg.norm(place)
        over = now["time"] >= horizon
        return now, omad.Outcome(look(now), reward, terminated=jnp.zeros_like(over), truncated=over)

    return omad.JaxEnv(spec, reset, step)


# %% [markdown]
# ## Check
#
# Training looks at shapes before it compiles anything. Only `omad check-env` takes steps, 1,000 random ones, and says
# in sentences what is wrong: numbers that are not finite, episodes that never end. Commands import an env by its path,
# so put `tugs` and the imports into a file of their own, `barge.py`, which does nothing but define it:
# `omad check-env jax:barge:tugs`.

# %%
env = tugs()
state, seen = env.reset(jax.random.key(0))
state, outcome = env.step(state, jnp.ones((2, 1)), jax.random.key(1))
assert outcome.next.obs.shape == (2, 6) and outcome.next.state.shape == (7,)

# %% [markdown]
# ## Train
#
# One setting depends on the task: `v_max`, the bound of the values that the critics can represent. A reward here is
# at least -2.9, in practice near -1.5, and with a discount γ the value is at most 1 / (1 - γ) times that. With γ 0.95
# that is 30. Entropy bonuses come on top, so take 60.

# %%
run = omad.train(env=tugs(), total_steps=30_000, eval_every=3_000, gamma=0.95, v_max=60.0, share_policy=False)

# %% [markdown]
# ## Read the metrics
#
# Four curves answer most questions. Returns rise; the temperature falls, but not before returns rise; the running
# cost settles at its limit of 4 a dimension, where the entropy constraint binds; there is no mass on the edge atoms.
# Here the running cost is still on its way after 30,000 env steps: the team would gain from more.

# %%
metrics, evaluations = run.metrics(), run.evaluations()
panels = {
    "eval return": (evaluations.steps, evaluations["return"][0]),
    "alpha/value": (metrics.steps, metrics["alpha/value"][0]),
    "policy/running_cost": (metrics.steps, metrics["policy/running_cost"][0]),
    "critic/edge_mass": (metrics.steps, metrics["critic/edge_mass"][0]),
}
figure, axes = plt.subplots(1, 4, figsize=(11, 2.4), layout="constrained")
for panel, (title, (steps, values)) in zip(axes, panels.items(), strict=True):
    panel.plot(steps, values, color="#0072B2")
    panel.set(title=title, xlabel="env steps")
figure.savefig("tugs-metrics.png", dpi=90)

# %% [markdown]
# ![Metrics of the run](../assets/tutorials/tugs-metrics.png)
#
# ## Look at what was learned
#
# `policy.act` takes observations with any leading axes, so a batch of episodes is one call a step.

# %%
policy = run.policy(which="best")
reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
state, seen = reset(jax.random.split(jax.random.key(7), 6))
places = [np.asarray(state["place"])]
for t in range(env.spec.horizon):
    state, outcome = step(state, policy.act(seen.obs), jax.random.split(jax.random.key(t), 6))
    seen = outcome.next
    places.append(np.asarray(state["place"]))
paths = np.stack(places)
print("distance from the berth at the end:", np.linalg.norm(paths[-1], axis=-1).round(2))

# %%
figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
for episode in range(6):
    axes.plot(*paths[:, episode].T, ".-", markersize=3)
    axes.plot(*paths[0, episode], "ko", markersize=5)
axes.plot(0, 0, "r*", markersize=14)
axes.set(aspect="equal", title="Six episodes, from the dots to the berth")
figure.savefig("tugs-paths.png", dpi=100)

# %% [markdown]
# ![Paths of the barge](../assets/tutorials/tugs-paths.png)
#
# ## Next
#
# - Commands know an env by its path only, not one that Python was given as an object, as above. With `barge.py` they
#   train it, `omad train --task "jax:barge:tugs?horizon=60" --v-max 60`, and evaluate such a run.
# - Give `omad.JaxEnv` a `picture`, and `omad render` draws runs of that path.
# - If the task has symmetries, state them in `JaxEnv.symmetry`, and `--symmetry` learns from them.
# - Returns stay flat? The tuning guide says what to look at, in order.
