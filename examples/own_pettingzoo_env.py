"""Train on a PettingZoo env of your own whose agents are unequal: an arm of two joints and a winch lift a load.

cd examples && python own_pettingzoo_env.py
"""

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

import omad


class Lift(ParallelEnv):
    """The load rises with the winch, and the arm has to keep it level."""

    metadata = {"name": "lift"}
    possible_agents = ["arm", "winch"]
    max_steps = 25

    def observation_space(self, agent):
        return Box(-np.inf, np.inf, (4 if agent == "arm" else 2,))

    def action_space(self, agent):
        return Box(-1.0, 1.0, (2,)) if agent == "arm" else Box(0.0, 0.5, (1,))

    def look(self):
        seen = {"arm": np.append(self.tilt, [self.height, 1.0]), "winch": np.array([self.height, self.tilt.sum()])}
        return {agent: row.astype(np.float32) for agent, row in seen.items()}

    def reset(self, seed=None, options=None):
        rng = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        self.height, self.tilt = 0.0, rng.uniform(-0.5, 0.5, 2)
        return self.look(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.time += 1
        self.tilt = np.clip(self.tilt + 0.2 * actions["arm"], -1, 1)
        self.height = min(1.0, self.height + 0.2 * float(actions["winch"][0]))
        paid = self.height - float(np.abs(self.tilt).sum())
        over, agents = self.time >= self.max_steps, self.agents
        self.agents = [] if over else agents
        flags = dict.fromkeys(agents, False), dict.fromkeys(agents, over)
        return self.look(), dict.fromkeys(agents, paid / 2), *flags, {agent: {} for agent in agents}


def main(run_dir=None, preset="cpu", **fields):
    """Worker processes import the env by its name, so it is named and not handed over."""
    return omad.train("pettingzoo:own_pettingzoo_env:Lift", preset=preset, run_dir=run_dir, v_max=40.0, **fields)


if __name__ == "__main__":
    run = main(total_steps=20_000)
    obs = {"arm": np.zeros(4), "winch": np.zeros(2)}
    print(run.policy().act(obs, 3))  # by name, in the env's own units
