"""Label maps become CT on the device: anatomy, appearance, lesions, acquisition of one crop."""
