"""
What can be looked up?

One module for each page below ``docs/reference``, made of the tables and classes that the gateway itself uses: a page
can't say anything else than the code. Descriptions stand beside what they describe, never in here.
"""
