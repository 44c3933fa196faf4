"""A page that shows the object: one file that loads nothing, to be sent to others.

`content` gathers what it shows, `page` fills it in. `three.min.js` is the part of three.js that the page uses; the
folder `bundling` of the repository makes it.
"""
