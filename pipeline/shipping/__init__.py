"""Takes a trained student to where it is used: predictions for photographs, and files for other programs."""
