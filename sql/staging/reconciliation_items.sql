-- The facts of a row of the reconciliation that must be judged: an odd gateway invoice
-- (staging.odd_invoices), or a charge that belongs to none.
--
-- facts/reconciliation.md, sections 1, 2 and 4: sums, instants and yes-or-no facts, so that the
-- mart can state the order of the statuses and nothing else. Sums are over settled linked charges
-- and bills in the row's currency.
--
-- kind: view
-- grain: item_id
with linked as (
    select * from staging.odd_charges where role <> 'conflict'
),

summed as (  -- of invoices with more to tell than one charge
    select
        invoice_id,
        max(rung) as weakest_rung,
        max(rung) filter (role = 'settled') as weakest_settled_rung,
        coalesce(sum(amount_minor) filter (role = 'settled' and not is_other_currency), 0)::bigint
            as charged_minor,
        (count(*) filter (role = 'settled'))::integer as charge_count,
        count(*) filter (role = 'settled' and not is_other_currency) as summed_count,
        min(amount_minor) filter (role = 'settled' and not is_other_currency) as least_minor,
        coalesce(bool_or(role <> 'dead' and is_other_currency), false) as has_other_currency,
        coalesce(bool_or(role <> 'dead' and is_other_workspace), false) as has_other_workspace,
        max(charged_at) filter (role = 'waiting') as last_waiting_at,
        any_value(charge_id) filter (role = 'settled') as told_charge_id,
        any_value(charged_at) filter (role = 'settled') as told_at,
        arg_max_null(payment_intent_id, (charged_at, charge_id)) as payment_intent_id,
        arg_max_null(stripe_invoice_id, (charged_at, charge_id)) as stripe_invoice_id,
    from linked
    semi join staging.crowded_invoices using (invoice_id)
    group by 1
),

linked_sums as (  -- of all others the one charge's own numbers: there may be millions
    select * from summed
    union all by name
    select
        invoice_id,
        rung as weakest_rung,
        rung as weakest_settled_rung,
        amount_minor as charged_minor,
        1::integer as charge_count,
        1 as summed_count,
        amount_minor as least_minor,
        false as has_other_currency,
        is_other_workspace as has_other_workspace,
        charge_id as told_charge_id,
        charged_at as told_at,
        payment_intent_id,
        stripe_invoice_id,
    from linked
    anti join staging.crowded_invoices using (invoice_id)
),

undone as (  -- invoices with charges that were refunded or disputed
    select
        invoice_id,
        sum(refunded_minor) filter (not is_other_currency)::bigint as refunded_minor,
        sum(disputed_minor) filter (not is_other_currency)::bigint as disputed_minor,
        min(open_dispute_at) as open_dispute_at,
        min(failed_refund_at) as failed_refund_at,
        bool_or(has_lost_dispute) as has_lost_dispute,
        bool_or(has_won_dispute) as has_won_dispute,
    from staging.odd_charges
    inner join staging.charge_money using (charge_id)
    where role = 'settled'
    group by 1
),

nets as (  -- and what is left of each of their charges
    select
        invoice_id,
        count(*) filter (net_minor > 0) as kept_charge_count,
        min(net_minor) filter (net_minor > 0) as least_net_minor,
    from (
        select
            invoice_id,
            odd_charges.amount_minor - coalesce(refunded_minor, 0) as net_minor,
        from staging.odd_charges
        semi join undone using (invoice_id)
        left join staging.charge_money using (charge_id)
        where role = 'settled' and not is_other_currency
    ) as each_charge
    group by 1
),

bills as (  -- the tied Stripe invoices
    select
        infery_invoice_id,
        arg_max(stripe_invoice_id, (created_at, stripe_invoice_id)) as stripe_invoice_id,
        max(rung) as rung,
        bool_and(status = 'void') as is_all_void,
        coalesce(bool_or(is_other_workspace), false) as has_other_workspace,
        coalesce(bool_or(is_bill and is_other_currency), false) as has_other_currency,
        sum(total_minor) filter (is_bill and not is_other_currency)::bigint as billed_minor,
        coalesce(
            sum(pre_payment_credit_notes_minor + balance_applied_minor)
                filter (is_bill and not is_other_currency), 0
        )::bigint as lessened_minor,
        coalesce(sum(out_of_band_minor) filter (is_bill and not is_other_currency), 0)::bigint
            as out_of_band_minor,
    from staging.stripe_invoice_ties
    where is_tied
    group by 1
),

conflicts as (
    select invoice_id from staging.odd_charges where role = 'conflict'
    union
    select infery_invoice_id as invoice_id from staging.stripe_invoice_ties where not is_tied
),

invoice_rows as (
    select
        invoices.infery_invoice_id as item_id,
        'invoice' as item_kind,
        invoices.infery_invoice_id as invoice_id,
        invoices.workspace_id,
        invoices.kind,
        invoices.status as gateway_status,
        coalesce(
            bills.stripe_invoice_id,
            linked_sums.stripe_invoice_id,
            invoices.stripe_invoice_id
        ) as stripe_invoice_id,
        coalesce(linked_sums.payment_intent_id, invoices.payment_intent_id) as payment_intent_id,
        coalesce(weakest_settled_rung, weakest_rung, bills.rung) as rung,
        coalesce(weakest_settled_rung, 1) = 1 as is_all_first_rung,
        invoices.currency,
        invoices.issued_at as began_at,
        invoices.total_minor,
        bills.billed_minor,
        case
            when invoices.status in ('draft', 'void', 'uncollectible') then 0
            else greatest(invoices.total_minor - coalesce(lessened_minor, 0), 0)
        end as expected_minor,
        coalesce(charged_minor, 0) as charged_minor,
        coalesce(out_of_band_minor, 0) as out_of_band_minor,
        coalesce(refunded_minor, 0) as refunded_minor,
        coalesce(disputed_minor, 0) as disputed_minor,
        coalesce(charge_count, 0) as charge_count,
        coalesce(kept_charge_count, summed_count, 0) as kept_charge_count,
        case when undone.invoice_id is null then least_minor else least_net_minor
        end as least_net_minor,
        invoices.status in ('draft', 'void', 'uncollectible') as is_void,
        coalesce(is_all_void, false) as is_all_void,
        conflicts.invoice_id is not null as is_contradicted,
        coalesce(linked_sums.has_other_workspace, false)
        or coalesce(bills.has_other_workspace, false) as has_other_workspace,
        coalesce(linked_sums.has_other_currency, false)
        or coalesce(bills.has_other_currency, false) as has_other_currency,
        last_waiting_at,
        open_dispute_at,
        failed_refund_at,
        coalesce(has_lost_dispute, false) as has_lost_dispute,
        coalesce(has_won_dispute, false) as has_won_dispute,
        case when charge_count = 1 then told_charge_id end as told_charge_id,
        charged_minor as told_minor,
        told_at,
    from staging.invoices as invoices
    semi join staging.odd_invoices using (infery_invoice_id)
    left join linked_sums on linked_sums.invoice_id = invoices.infery_invoice_id
    left join undone on undone.invoice_id = invoices.infery_invoice_id
    left join nets on nets.invoice_id = invoices.infery_invoice_id
    left join bills on bills.infery_invoice_id = invoices.infery_invoice_id
    left join conflicts on conflicts.invoice_id = invoices.infery_invoice_id
),

charge_rows as (
    select
        charge_id as item_id,
        'charge' as item_kind,
        charge_id,
        case when not has_several then infery_invoice_id end as claimed_invoice_id,
        claimed_workspace_id as workspace_id,
        state as charge_state,
        stripe_invoice_id,
        payment_intent_id,
        currency,
        created_at as began_at,
        0::bigint as total_minor,
        0::bigint as expected_minor,
        case when state = 'settled' then amount_minor else 0 end as charged_minor,
        0::bigint as out_of_band_minor,
        case when state = 'settled' then coalesce(refunded_minor, 0) else 0 end as refunded_minor,
        case when state = 'settled' then coalesce(disputed_minor, 0) else 0 end as disputed_minor,
        (case when state = 'settled' then 1 else 0 end)::integer as charge_count,
        state in ('settled', 'waiting') and has_several as is_contradicted,
        case when state = 'waiting' then created_at end as last_waiting_at,
        case when state = 'settled' then open_dispute_at end as open_dispute_at,
        case when state = 'settled' then failed_refund_at end as failed_refund_at,
        state = 'settled' and coalesce(has_lost_dispute, false) as has_lost_dispute,
        state = 'settled' and coalesce(has_won_dispute, false) as has_won_dispute,
        charge_id as told_charge_id,
        amount_minor as told_minor,
        created_at as told_at,
    from staging.charge_ladders
    left join staging.charge_money using (charge_id)
    where state = 'test' or has_several or not is_known  -- no invoice speaks for it
),

items as (
    select * from invoice_rows
    union all by name
    select * from charge_rows
)

select
    item_id,  -- the invoice id, or the charge id
    item_kind,  -- invoice | charge
    invoice_id,
    charge_id,
    claimed_invoice_id,
    workspace_id,
    kind,
    gateway_status,  -- null on a charge row
    charge_state,  -- null on an invoice row
    stripe_invoice_id,
    payment_intent_id,
    case rung
        when 1 then 'charge_metadata' when 2 then 'charge_invoice_id'
        when 3 then 'payment_intent_metadata' when 4 then 'stripe_invoice_metadata'
        when 5 then 'subscription_metadata' when 6 then 'gateway_reference'
        when 7 then 'report_invoice_id'
    end as matched_by,  -- the weakest rung among the settled linked charges, else all
    is_all_first_rung,  -- every settled charge came by rung 1
    currency,
    began_at,  -- issued_at, or the charge's created
    total_minor,
    billed_minor,
    expected_minor,
    charged_minor,
    out_of_band_minor,
    refunded_minor,
    disputed_minor,
    charged_minor + out_of_band_minor as received_minor,
    charged_minor + out_of_band_minor - refunded_minor as held_minor,
    charged_minor + out_of_band_minor - refunded_minor - disputed_minor as kept_minor,
    charged_minor + out_of_band_minor - expected_minor - least(
        refunded_minor, greatest(0, charged_minor + out_of_band_minor - expected_minor)
    ) as difference_minor,
    charge_count,
    kept_charge_count,  -- settled charges that are not wholly refunded
    least_net_minor,  -- the least of those, net of its refunds
    coalesce(is_void, false) as is_void,  -- the gateway says that nothing is owed
    coalesce(is_all_void, false) as is_all_void,  -- Stripe has voided every bill of it
    is_contradicted,
    coalesce(has_other_workspace, false) as has_other_workspace,
    coalesce(has_other_currency, false) as has_other_currency,
    last_waiting_at,  -- created of the newest waiting charge
    open_dispute_at,  -- the earliest open dispute
    failed_refund_at,  -- the earliest failed refund of a charge where it is not made good
    has_lost_dispute,
    has_won_dispute,
    told_charge_id,  -- the one charge to tell of, where there is one
    told_minor,
    told_at,
from items
