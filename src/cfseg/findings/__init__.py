"""What a label map says about a patient: volumes, densities, lesions, and how sure it is."""
