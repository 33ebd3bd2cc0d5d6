"""How do bytes reach a provider over HTTP, and what exactly happened when they did not?"""
