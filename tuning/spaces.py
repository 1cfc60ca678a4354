"""Search spaces of your own, to copy and change: unfused-ray sweep … --space tuning/spaces.py:HEADS."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

HEADS = {
    "method.alpha": FloatDistribution(0.0, 1.0),
    "method.temperature": FloatDistribution(1.0, 4.0),
    "method.mse_of": CategoricalDistribution(("logits", "features")),
}
