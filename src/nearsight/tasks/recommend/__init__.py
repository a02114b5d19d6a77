"""What goes with what: lookalikes, what is bought together, and both for what nobody has bought yet."""

from nearsight.tasks.recommend.diversity import diversify
from nearsight.tasks.recommend.recommender import Recommendation, Recommender
from nearsight.tasks.recommend.why import Reason

__all__ = ["Reason", "Recommendation", "Recommender", "diversify"]
