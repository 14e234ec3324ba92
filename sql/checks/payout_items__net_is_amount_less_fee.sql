-- Of a balance transaction the net is the amount less the fee, and the fee is what its details sum
-- to (facts/reconciliation.md, section 7).
select
    null::date as usage_date,
    'staging.balance_transactions' as table_name,
    'the net of ' || balance_transaction_id || ' is its amount less its fee, as detailed' as claim,
    (amount_minor - coalesce(fee_details_minor, fee_minor))::varchar as expected,
    net_minor::varchar as found,
from staging.balance_transactions
where net_minor <> amount_minor - fee_minor or fee_details_minor <> fee_minor
