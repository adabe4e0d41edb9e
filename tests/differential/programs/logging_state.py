import logging
logging.warning("shown")
logging.info("hidden")
print(logging.root.handlers, logging.root.level)
logging.getLogger("matplotlib").warning("mpl")
