"""Pictures that a run leaves for people to look at: a slide's cells or nuclei, its regions, the cohort."""
