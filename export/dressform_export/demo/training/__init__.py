"""The training recipe: ``python -m dressform_export.demo.training`` makes the demonstration's networks, or fine-tunes
a diffusers inpainting pipeline on a folder of try-on pictures."""
