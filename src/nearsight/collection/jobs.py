"""What can be done with all the pictures of a collection: each job is a module, and a line here.

A job is a function whose first argument is a `View`. It reads rows as arrays and calls a task.
"""

from nearsight.analyses.classification import classifier, classify, fit_classifier, suggest_labels
from nearsight.analyses.clusters import assign, cluster
from nearsight.analyses.customer_segments import assign_customers, segment
from nearsight.analyses.duplicates import duplicates
from nearsight.analyses.map import map_
from nearsight.analyses.outliers import anomalies
from nearsight.analyses.pca import project
from nearsight.analyses.recommendations import catalogue, load_catalogue, recommend
from nearsight.analyses.saved_clusters import save_clusters
from nearsight.collection.facts import info


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
