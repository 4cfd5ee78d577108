"""An image classifier of transformers, explained and scored in plain PyTorch."""

from sklearn.datasets import load_sample_images
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

import lightning_xai as lx

# Of trained weights: ViTForImageClassification.from_pretrained(NAME), and the processor likewise.
sizes = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 96}
network = ViTForImageClassification(ViTConfig(image_size=64, patch_size=8, num_labels=5, **sizes))
processor = ViTImageProcessor(size={"height": 64, "width": 64})

photographs = load_sample_images().images
images = processor(photographs, return_tensors="pt")["pixel_values"]
bounds = lx.bounds(processor.image_mean, processor.image_std)

model = lx.Forward(network)  # whose result is an object with `logits`
maps = lx.explain(model, images, method="grad_cam", bounds=bounds)  # of the class that it predicts
print(maps.shape, maps.sum(1).flatten(1).argmax(1))

result = lx.evaluate(
    model,
    images,
    methods={"grad_cam": "grad_cam", "smooth": lx.smooth_grad(num_draws=10), "rough": "gradient"},
    metrics=["deletion_auc", "insertion_auc", "max_sensitivity"],
    bounds=bounds,
    output="probability",
)
print(result.to_scores().summary().pivot(index="method", columns="metric", values="mean"))
