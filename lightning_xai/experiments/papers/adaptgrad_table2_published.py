"""The numbers of AdaptGrad's table 2 (Zhou et al. 2024, arXiv 2410.07711)."""

NETWORKS = {"vgg16": "VGG16", "inception_v3": "InceptionV3", "resnet50": "ResNet50"}
"""The paper's, by torchvision's name."""
FAMILIES, PRESET = ("Grad", "GI", "IG(W)", "IG(B)", "NG"), ("IG(0)", "IG(1)")
"""Of the table; and IG with the baselines of the authors' code, whose white is 0 and whose black is 1 after the
normalisation. Holm's correction is over one or the other."""
METRICS = {"sparseness": "Sparseness", "information_level": "Information Level"}

_SPARSENESS = {
    "Grad": (0.5421, 0.5546, 0.5626),
    "SG": (0.5334, 0.5422, 0.5536),
    "AG": (0.5608, 0.5621, 0.5659),
    "GI": (0.6198, 0.6152, 0.6304),
    "S-GI": (0.6074, 0.5994, 0.6176),
    "A-GI": (0.6487, 0.6425, 0.6479),
    "IG(W)": (0.6284, 0.7083, 0.6178),
    "S-IG(W)": (0.6229, 0.7562, 0.6171),
    "A-IG(W)": (0.6327, 0.7586, 0.6205),
    "IG(B)": (0.6391, 0.6348, 0.6288),
    "S-IG(B)": (0.6371, 0.6392, 0.6250),
    "A-IG(B)": (0.6397, 0.6439, 0.6266),
    "NG": (0.5519, 0.5566, 0.5626),
    "S-NG": (0.5551, 0.5734, 0.5591),
    "A-NG": (0.5823, 0.5917, 0.5738),
}
_INFORMATION = {
    "IG(W)": (0.5635, 0.6677, 0.5491),
    "S-IG(W)": (0.5741, 0.7179, 0.5718),
    "A-IG(W)": (0.5846, 0.7221, 0.5849),
    "IG(B)": (0.5823, 0.6751, 0.5355),
    "S-IG(B)": (0.6035, 0.7166, 0.5731),
    "A-IG(B)": (0.6121, 0.7193, 0.5673),
}
PUBLISHED = {
    metric: {method: dict(zip(NETWORKS, values, strict=True)) for method, values in table.items()}
    for metric, table in {"sparseness": _SPARSENESS, "information_level": _INFORMATION}.items()
}
"""Means, by metric, method and network; Information Level is printed for IG alone."""


def members(family: str) -> tuple[str, str, str]:
    """The plain method, with SmoothGrad, and with AdaptGrad."""
    return ("Grad", "SG", "AG") if family == "Grad" else (family, f"S-{family}", f"A-{family}")


def published(network: str, metric: str, method: str) -> list[float]:
    """What is printed for this network, or for all three if it is another; empty for what is not printed.

    The preset's IG has the numbers of the paper's, which were made with it.
    """
    for ours, theirs in {"IG(0)": "IG(W)", "IG(1)": "IG(B)"}.items():
        method = method.replace(ours, theirs)
    known = PUBLISHED[metric].get(method, {})
    return [known[network]] if network in known else list(known.values())


def published_difference(network: str, metric: str, family: str) -> list[float]:
    """AdaptGrad less SmoothGrad, as `published`."""
    _, smooth, adapt = members(family)
    both = zip(published(network, metric, adapt), published(network, metric, smooth), strict=True)
    return [round(first - second, 4) for first, second in both]
