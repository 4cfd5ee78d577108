"""What a reader has to know of a metric: what is good, what is chance, and whether a control says anything."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from lightning_xai.names import snake_case
from lightning_xai.results.comparison import MetricComparison

Group = Literal["evidence", "faithfulness", "robustness", "form", "input", "other"]
GROUPS = get_args(Group)


@dataclass(frozen=True)
class About:
    """A metric in words.

    Attributes:
        title: Its name in a sentence.
        what: What a score is, and what is good.
        chance: What it is by chance.
        group: What it asks about.
        percent: Whether it is a share, written so.
        level: By chance, where that is known without measuring; else the random maps' mean is.
        limit: The best possible score, where there is one.
    """

    title: str
    what: str
    chance: str
    group: Group = "other"
    percent: bool = False
    level: float | None = None
    limit: float | None = None

    @property
    def has_floor(self) -> bool:
        """Whether a map that never saw the network must score badly: only then has a method to beat a control."""
        return self.group in ("evidence", "faithfulness")


_SHARE = "Chance: what random maps reach: about the share of the image that the mask covers."
_STEADY = "No control to beat: maps that ignore the network are perfectly steady, so the controls mean nothing here."
_FORM = "No control to beat: the controls are landmarks. A sparser or simpler map is not a truer one."
_LANDMARK = "Chance: what random maps reach."
_UNKNOWN = "A metric of your own, or of another package: what it asks is not known."

ABOUT = {
    "relevance_rank_accuracy": About(
        "relevance rank accuracy",
        "Share of the K strongest pixels of a map that lie in the mask, which has K pixels. The mask itself has 100 %.",
        _SHARE,
        "evidence",
        True,
        limit=1.0,
    ),
    "relevance_mass_accuracy": About(
        "relevance mass accuracy",
        "Share of a map's mass that lies in the mask. The mask itself has 100 %.",
        _SHARE,
        "evidence",
        True,
        limit=1.0,
    ),
    "auroc": About(
        "AUROC",
        "Probability that a pixel in the mask is stronger than one outside of it. The mask itself has 1.",
        "Chance: 0.5, the order of the pixels says nothing of the mask.",
        "evidence",
        level=0.5,
        limit=1.0,
    ),
    "pointing_game": About(
        "pointing game",
        "Share of the images whose strongest pixel lies in the mask.",
        _SHARE,
        "evidence",
        True,
        limit=1.0,
    ),
    "top_k_intersection": About(
        "top-k intersection",
        "Share of the k strongest pixels that lie in the mask.",
        _SHARE,
        "evidence",
        True,
        limit=1.0,
    ),
    "faithfulness_correlation": About(
        "faithfulness correlation",
        "Correlation of the attribution of random sets of pixels with what the output loses without them.",
        "Chance: 0, the two have nothing to do with each other.",
        "faithfulness",
        level=0.0,
        limit=1.0,
    ),
    "pixel_flipping": About(
        "pixel flipping", "How soon the output falls as the strongest pixels go first.", _LANDMARK, "faithfulness"
    ),
    "insertion_auc": About(
        "insertion AUC", "How soon the output rises as the strongest pixels come first.", _LANDMARK, "faithfulness"
    ),
    "deletion_auc": About(
        "deletion AUC", "What is left of the output as the strongest pixels go first.", _LANDMARK, "faithfulness"
    ),
    "information_level": About(
        "information level",
        "How much of the prediction the strongest pixels bring back into a blurred image, for the bytes they take.",
        _LANDMARK,
        "faithfulness",
    ),
    "infidelity": About(
        "infidelity",
        "Squared error of the map as a prediction of what the removal of squares does to the output.",
        _LANDMARK,
        "faithfulness",
    ),
    "max_sensitivity": About(
        "max-sensitivity", "Greatest change of the map under small changes of the input.", _STEADY, "robustness"
    ),
    "average_sensitivity": About(
        "average sensitivity", "Mean change of the map under small changes of the input.", _STEADY, "robustness"
    ),
    "local_lipschitz": About(
        "local Lipschitz estimate", "Greatest change of the map over that of the input, nearby.", _STEADY, "robustness"
    ),
    "sparseness": About(
        "sparseness",
        "Gini index of the map's absolute values: 0 if all pixels are equal, near 1 if a few have everything.",
        _FORM,
        "form",
    ),
    "complexity": About("complexity", "Entropy of the shares of the pixels: fewer count, less of it.", _FORM, "form"),
    "effective_complexity": About("effective complexity", "Number of pixels that count.", _FORM, "form"),
    "inherent_noise": About(
        "inherent noise",
        "Share of the noisy input values that no real image can have, because they lie out of the data's range.",
        "No control to beat: a method without noise on its input has 0.",
        "input",
        True,
    ),
}
ABOUT["accuracy"] = About(
    "accuracy of the network", "Share of the samples that the network is right on.", "", percent=True
)
ABOUT["localization_auroc"] = ABOUT["auroc"]


_ROOM = "lightning_xai.metrics."


def about(metric: MetricComparison | str) -> About:
    """What is known of a metric by its class, whatever its name is; by its name where the class is not recorded."""
    name, made_by = (metric, "") if isinstance(metric, str) else (metric.metric, metric.metric_class)
    key = snake_case(made_by.removeprefix(_ROOM)) if made_by.startswith(_ROOM) else name
    if key not in ABOUT or (made_by and not made_by.startswith(_ROOM)):
        return About(name, _UNKNOWN, "Chance: not known.")
    known = ABOUT[key]
    return known if ABOUT.get(name) is known else replace(known, title=f"{known.title} ({name})")
