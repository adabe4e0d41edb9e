import locale, sys, time
print(locale.getlocale(), sys.getfilesystemencoding(), sys.getdefaultencoding(), time.tzname, locale.setlocale(locale.LC_ALL))
