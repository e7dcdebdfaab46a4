"""`satdifuser predict`: a run's head over a scene."""
