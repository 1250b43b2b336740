"""The files that PyInstaller packs: the model and every module of the runtime."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

datas = collect_data_files("PACKAGE")
hiddenimports = collect_submodules("PACKAGE.runtime")
