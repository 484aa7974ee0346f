"""Made-up copies of data sets, as small as they can be, in the layouts of their releases."""
