"""The demonstration model judged on held-out people and garments of the wardrobe: try-on and prompt inpainting."""
