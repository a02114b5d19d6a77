"""What can be done with all the pictures of a collection: each job is a module, and a line here.

A job is a function whose first argument is a `View`. It reads rows as arrays and calls a task.
"""

from nearsight.collection.cluster_keys import save_clusters
from nearsight.collection.clustering import assign, cluster
from nearsight.collection.duplicates import duplicates
from nearsight.collection.facts import info
from nearsight.collection.labelling import classifier, classify, fit_classifier, suggest_labels
from nearsight.collection.mapping import map_
from nearsight.collection.outlying import anomalies
from nearsight.collection.projecting import project
from nearsight.collection.recommending import catalogue, load_catalogue, recommend
from nearsight.collection.segmenting import assign_customers, segment


class Jobs:
    """The jobs, as methods of `Collection`."""

    assign = assign
    cluster = cluster
    save_clusters = save_clusters
    segment = segment
    assign_customers = assign_customers
    anomalies = anomalies
    duplicates = duplicates
    info = info
    map = map_
    project = project
    catalogue = catalogue
    load_catalogue = load_catalogue
    recommend = recommend
    classifier = classifier
    classify = classify
    fit_classifier = fit_classifier
    suggest_labels = suggest_labels
