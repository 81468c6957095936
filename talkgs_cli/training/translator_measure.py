"""How well a predicted mouth behaves like the real one, for the record of a training run.

The figures that users read come from `score`; these only steer training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from talkgs_cli.metrics.lips import closed_threshold

Array = NDArray[np.float32]


def behaviour(
    guess: Array, truth: Array, seen: Array, unseen: NDArray[np.bool_], opening: Array
) -> dict[str, float]:
    """Compare on frames that training did not see.

    Args:
        guess: [T, M] predicted mouth vectors.
        truth: [T, M].
        seen: [T', M] mouth vectors that were learnt from; they say what closed is.
        unseen: [T] bool.
        opening: [M] metres of opening per unit.

    Returns:
        opening_r, opening_spread (ratio of standard deviations), closure_recall,
        closure_precision, opening_error_m (RMS), opening_error_mean_m (of the mean mouth).
    """
    amount, real = guess[unseen] @ opening, truth[unseen] @ opening
    threshold = closed_threshold(seen @ opening)
    closed, really = amount < threshold, real < threshold
    both = float((closed & really).sum())
    spread = float(amount.std() / max(float(real.std()), 1e-9))
    correlation = float(np.corrcoef(amount, real)[0, 1]) if amount.std() > 1e-9 else 0.0
    return {
        "opening_r": round(correlation, 4),
        "opening_spread": round(spread, 4),
        "closure_recall": round(both / max(1, int(really.sum())), 4),
        "closure_precision": round(both / max(1, int(closed.sum())), 4),
        "opening_error_m": float(np.sqrt(np.mean((amount - real) ** 2))),
        "opening_error_mean_m": float(np.sqrt(np.mean((real - (seen @ opening).mean()) ** 2))),
    }
