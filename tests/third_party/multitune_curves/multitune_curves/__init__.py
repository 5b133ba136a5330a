"""Plug-ins for multitune: the modality `curve`, the tower `curve_reader`, the loss `poly_cross_entropy`."""
