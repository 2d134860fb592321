"""What is in a data folder, and what is wrong with it: measured image by image, never held as a whole.

survey.py        which images are measured, all or a seeded sample, and how: by the kind of data
pixels.py        what is measured of one image with labels; scenes.py the same of one with boxes
stream.py        over several processes: one image in the memory of each
tally.py         what is kept of all images: sums, histograms, a few numbers an image
fingerprint.py   what the tallies say, as JSON; sides.py what train and validation say of each other
cost.py          what a comparison would need, timed on a few steps
page.py          the page and the summary in the terminal
"""
