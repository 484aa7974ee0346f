"""Signal code on arrays: transforms, pitch units, mixing. Only `files` touches the disk."""
