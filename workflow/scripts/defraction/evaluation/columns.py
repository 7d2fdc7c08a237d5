"""The tables of one model: names of the files and their columns."""

TEXTS = ("model", "pattern_set", "condition", "control", "host", "kind", "parameter")
"""Columns of the accuracies that are no numbers."""
ACCURACY = (
    *TEXTS,
    "n_patterns", "n_effective", "n_crystals", "n_snapshots", "n_copies",
    "accuracy_label", "accuracy_label_low", "accuracy_label_high",
    "accuracy_space_group", "accuracy_space_group_low", "accuracy_space_group_high",
    "limit_space_group", "limit_space_group_uniform",
    "accuracy_extinction", "accuracy_extinction_low", "accuracy_extinction_high", "limit_extinction",
    "accuracy_ensemble", "limit_ensemble",
    "loss_label", "loss_label_low", "loss_label_high",
    "loss_space_group", "loss_space_group_low", "loss_space_group_high",
    "loss_ensemble", "loss_ensemble_low", "loss_ensemble_high", "published",
)  # fmt: skip
TABLES = {
    "accuracy": ACCURACY,
    "accuracy_by": (
        "model", "condition", "by", "value", "n_patterns", "n_effective",
        "accuracy_label", "accuracy_label_low", "accuracy_label_high",
        "accuracy_space_group", "accuracy_space_group_low", "accuracy_space_group_high", "limit_space_group",
    ),
    "ensembles": ("model", "condition", "rule", "k", "n_crystals", "accuracy", "low", "high", "limit"),
    "confusion": ("model", "condition", "true_space_group", "predicted_space_group", "share"),
    "confusion_labels": ("model", "condition", "true_label", "predicted_label", "share"),
    "mistakes": (
        "model", "condition", "zone_axis", "true_label", "predicted_label", "share", "share_of_mistakes",
    ),
    "calibration": (
        "model", "condition", "answer", "n_patterns", "n_copies", "accuracy", "limit", "confidence",
        "expected_calibration_error", "brier", "negative_log_likelihood",
    ),
    "reliability": ("model", "condition", "answer", "low", "high", "share", "confidence", "accuracy"),
}  # fmt: skip
"""Columns by name of the table, which is the name of its file."""
