"""The images and labels that a recipe's ``[data]`` names, in class folders or with a label file."""

from __future__ import annotations

from pipeline.datasets.sources import locate
from pipeline.datasets.sources.class_folders import read_class_folders
from pipeline.datasets.sources.group_names import with_groups
from pipeline.datasets.sources.image_list import ImageList
from pipeline.datasets.sources.label_file import read_label_file
from pipeline.errors import DataError
from pipeline.recipe import DataOptions


def read_list(options: DataOptions) -> ImageList:
    """Return the images and labels that the options name. Raises DataError."""
    if options.download:
        raise DataError('data.kind = "images" has no download. Set data.download=false.')
    if options.root is None:
        raise DataError(
            'data.kind = "images" needs data.root, a folder of images. `pipeline init NAME --data '
            "FOLDER` writes a recipe for one."
        )
    root = locate.folder_of(options.root)
    if options.label_file is None:
        for key in ("label_column", "attributes", "group_column", "tags_separator", "one_hot"):
            if getattr(options, key):
                raise DataError(
                    f"data.{key} is about columns of a CSV file; name that with data.label_file, "
                    f"or remove data.{key}: without a file, sub-folders are classes."
                )
        return with_groups(read_class_folders(root, options.labels), options)
    file = locate.find_label_file(root, options.label_file)
    return with_groups(read_label_file(root, file, options), options)
