"""A small gateway and its Stripe account, made from a seed, with the truth beside it.

For the demo and the tests. `gateway.py` writes the landing folder, `billing.py` the invoices and
the charges that disagree with them on purpose, `stripe_account.py` gives Stripe's objects their
shapes, `stripe_server.py` serves them as Stripe's API does. Nothing that reads real data belongs
here, and nothing but the demo and the tests needs it.
"""
