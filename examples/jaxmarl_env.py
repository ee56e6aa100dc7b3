"""Train on an env of JaxMARL, by its name there.

pip install 'omad[jaxmarl]' && python examples/jaxmarl_env.py
"""

import omad

TASK = "jaxmarl:MPE_simple_spread_v3?action_type=Continuous"


def main(run_dir=None, preset="cpu", **fields):
    """On the command line: omad train --task 'jaxmarl:MPE_simple_spread_v3?action_type=Continuous'."""
    return omad.train(TASK, preset=preset, run_dir=run_dir, v_max=100.0, **fields)


if __name__ == "__main__":
    run = main(total_steps=20_000)
    print(run.evaluate(100).mean())
