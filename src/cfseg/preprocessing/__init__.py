"""From a CT to a network's input, and from its logits back to the CT's grid."""
