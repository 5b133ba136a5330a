"""What a pretrained model is made of, found by building it without its weights: towers, blocks, shapes, heads and limits."""
