"""The one training loop; it knows no network, loss, data set or metric."""
