-- A currency whose minor unit is not a hundredth of the major one, or not known to be.
--
-- facts/reconciliation.md, section 2; every currency that is not listed has two places, isk
-- included. Only words use it: every amount in the warehouse is an integer of minor units already.
--
-- grain: currency
select
    currency,  -- lower-case ISO code
    places,  -- digits after the point; null: not known
from (
    values
        ('bif', 0), ('clp', 0), ('djf', 0), ('gnf', 0), ('jpy', 0), ('kmf', 0), ('krw', 0),
        ('mga', 0), ('pyg', 0), ('rwf', 0), ('vnd', 0), ('vuv', 0), ('xaf', 0), ('xof', 0),
        ('xpf', 0), ('bhd', 3), ('jod', 3), ('kwd', 3), ('omr', 3), ('tnd', 3), ('ugx', null)
) as listed (currency, places)
