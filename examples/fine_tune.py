"""Train on one task, then go on from its actors, critics and temperature on another one.

python examples/fine_tune.py
"""

import omad


def main(first_dir=None, second_dir=None, preset="cpu", **fields):
    """What fits by name and shape is taken over; the manifest lists what did not."""
    first = omad.train("mpe/spread-3", preset=preset, run_dir=first_dir, **fields)
    harder = "mpe/spread-3?dynamics=v2"
    second = omad.train(harder, preset=preset, run_dir=second_dir, init_from=str(first.path), **fields)
    return first, second


if __name__ == "__main__":
    before, after = main(total_steps=20_000)
    print("taken over:", after.manifest["init_from"]["taken"], "arrays; left:", after.manifest["init_from"]["left"])
    print("return of the first run:", before.evaluations()["return"], "of the second:", after.evaluations()["return"])
    longer = omad.resume(after, total_steps=40_000)  # a complete run can be made longer
    print(longer.evaluations().steps)
