"""Several trainings of one video that differ in their seed or in values of options."""
