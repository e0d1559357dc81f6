"""The names of figures: in --select, in metrics.json, for a person; and which way is better."""

LOWER_IS_BETTER = ("loss", "mae", "rmse")
TITLES = {
    **{"map": "mAP", "mae": "MAE", "rmse": "RMSE", "r2": "R2"},
    **{"mean_average_precision": "mAP", "average_precision": "average precision"},
    **{"subset_accuracy": "subset accuracy", "hamming_loss": "Hamming loss"},
}
FRACTIONS = ("accuracy", "map", "mean_average_precision", "subset_accuracy", "hamming_loss")


def json_name(name: str) -> str:
    """Return the name in metrics.json of a figure of --select."""
    return "mean_average_precision" if name == "map" else name.replace("-", "_")


def title(name: str) -> str:
    """Return a figure's name for a person, from its name in --select or in metrics.json."""
    return TITLES.get(name, name.replace("_", "-").replace("f1", "F1"))


def is_fraction(name: str) -> bool:
    """Return whether a figure is from 0 to 1 and shown in percent."""
    return name in FRACTIONS or name.endswith("f1")


def show_value(name: str, value: float | None) -> str:
    """Return the value of a figure for a person."""
    if value is None:
        return "undefined"
    if name == "loss":
        return f"{value:.4f}"
    return f"{100 * value:.1f}%" if is_fraction(name) else f"{value:.4g}"


def show_figure(name: str, value: float | None) -> str:
    """Return a figure and its name for a person."""
    return f"{title(name)} {show_value(name, value)}"
