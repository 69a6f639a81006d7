"""What students are: how right, how close to the teacher, at what cost; and the report of all of them."""
