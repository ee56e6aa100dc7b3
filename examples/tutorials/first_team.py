# %% [markdown]
# # Tutorial 1: a first team
#
# Three agents learn to cover three landmarks. You train them, check what they learned against reference returns,
# watch an episode, act with the policies in a loop of your own, and write them to disk for a robot that has no JAX.
#
# The script is `examples/tutorials/first_team.py`; its cells run in an editor, or all at once with `python
# first_team.py`. It takes about ten minutes on two cores.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import omad

# %% [markdown]
# ## Train
#
# `mpe/spread-3` is Cooperative Navigation with three agents. The preset `cpu` is sized for a laptop. 60,000 env steps
# are enough to see the team leave the greedy policy behind; 200,000 give the returns of the results page.

# %%
run = omad.train("mpe/spread-3", total_steps=60_000, eval_every=4_000)
print(run.path)

# %% [markdown]
# ## Did it learn?
#
# Every evaluation episode's return is in the run folder. `returns` has the axes seed, step, episode. The dotted lines
# are reference returns of scripted policies, which `omad tasks mpe/spread-3` lists with their sources.

# %%
evaluations = run.evaluations()
mean = evaluations["returns"].mean(axis=2)[0]
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.plot(evaluations.steps, mean, "o-", color="#0072B2", label="OMAD, sampled actions")
for name, value in (("random", -75.5), ("nearest landmark", -48.7), ("best assignment", -17.6)):
    axes.axhline(value, linestyle=":", color="grey")
    axes.annotate(name, (evaluations.steps[-1], value), ha="right", va="bottom", color="grey", fontsize=8)
axes.set(xlabel="env steps", ylabel="team return")
axes.legend(loc="upper left")
figure.savefig("curve.png", dpi=100)

# %% [markdown]
# ![Learning curve](../assets/tutorials/curve.png)
#
# Two more numbers say whether the critic could follow. `critic/edge_mass` is the probability on the outermost atoms
# of the value distribution: above 0.01, raise `v_max`. `alpha/value` is the temperature: it should fall, but not
# before returns rise.

# %%
metrics = run.metrics()
for key in ("critic/edge_mass", "alpha/value", "policy/running_cost", "policy/saturation"):
    print(f"{key:22} {np.nanmean(metrics[key][0, -3:]):8.4f}")

# %% [markdown]
# The evaluations above chose nothing, but if you report the best of several checkpoints, evaluate it anew with
# another seed: the highest of many noisy numbers is biased upwards.

# %%
fresh = run.evaluate(episodes=1000, which="best", seed=7)
print("sampled", fresh.mean("sampled"), "noise-free", fresh.mean("noise_free"))

# %% [markdown]
# ## Act
#
# A policy needs neither the critic nor the env. Each agent acts on its own observation alone; the same call with a
# seed samples, without one it is noise-free.

# %%
policy = run.policy(seed=0, which="best")
env = omad.envs.make("mpe/spread-3")
reset, step = jax.jit(env.reset), jax.jit(env.step)
state, seen = reset(jax.random.key(1))
places, total = [np.asarray(state.pos)], 0.0
for t in range(env.spec.horizon):
    state, outcome = step(state, policy.act(seen.obs), jax.random.key(t))
    seen, total = outcome.next, total + float(outcome.reward)
    places.append(np.asarray(state.pos))
print("return of this episode:", round(total, 1))

# %% [markdown]
# The state of the particle tasks has the positions of agents and landmarks.

# %%
paths = np.stack(places)
figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
for agent, color in zip(range(3), ("#0072B2", "#D55E00", "#009E73"), strict=True):
    axes.plot(*paths[:, agent].T, ".-", color=color, label=f"agent {agent}")
axes.plot(*np.asarray(state.landmarks).T, "k*", markersize=14, linestyle="none", label="landmarks")
axes.set(aspect="equal", title="One episode, noise-free")
axes.legend(fontsize=8)
figure.savefig("episode.png", dpi=100)

# %% [markdown]
# ![One episode](../assets/tutorials/episode.png)
#
# `omad render RUN` draws the same as an animation.
#
# ## Take it away
#
# One folder an agent, with a runner that needs NumPy alone.

# %%
folder = policy.export("team", formats=("numpy",))
print(sorted(path.name for path in folder.iterdir()))
