-- The facts of one row of the reconciliation: a gateway invoice, or a charge that belongs to none.
--
-- facts/reconciliation.md, sections 1, 2 and 4: sums, ages and yes-or-no facts, so that the mart
-- can state the order of the statuses and nothing else. Sums are over settled linked charges in
-- the row's currency. Stripe invoices (billed_minor, out_of_band_minor, ties) are not read yet:
-- their columns hold what an invoice without one has.
--
-- grain: item_id
with linked as (  -- an invoice's charges, each with what became of its money
    select
        invoice_charges.invoice_id,
        invoices.currency as invoice_currency,
        invoices.workspace_id as invoice_workspace_id,
        charge_id,
        invoice_charges.matched_by,
        invoice_charges.rung,
        invoice_charges.role,
        charges.currency,
        charges.created_at,
        charges.amount_captured_minor - charge_money.refunded_minor as net_minor,
        charges.currency = invoices.currency and invoice_charges.role = 'settled' as is_summed,
        charges.amount_captured_minor,
        charges.payment_intent_id,
        charges.stripe_invoice_id,
        charge_money.* exclude (charge_id),
    from marts.invoice_charges
    inner join staging.invoices on invoices.infery_invoice_id = invoice_charges.invoice_id
    inner join staging.charges using (charge_id)
    inner join staging.charge_money using (charge_id)
    where invoice_charges.role <> 'conflict'
),

linked_sums as (
    select
        invoice_id,
        coalesce(
            arg_max(matched_by, rung) filter (role = 'settled'),
            arg_max(matched_by, rung)
        ) as matched_by,
        coalesce(max(rung) filter (role = 'settled'), 1) = 1 as is_all_first_rung,
        arg_max_null(payment_intent_id, (created_at, charge_id)) as payment_intent_id,
        arg_max_null(stripe_invoice_id, (created_at, charge_id)) as stripe_invoice_id,
        coalesce(sum(amount_captured_minor) filter (is_summed), 0)::bigint as charged_minor,
        coalesce(sum(refunded_minor) filter (is_summed), 0)::bigint as refunded_minor,
        coalesce(sum(disputed_minor) filter (is_summed), 0)::bigint as disputed_minor,
        (count(*) filter (role = 'settled'))::integer as charge_count,
        count(*) filter (is_summed and net_minor > 0) as kept_charge_count,
        min(net_minor) filter (is_summed and net_minor > 0) as least_net_minor,
        coalesce(bool_or(role in ('settled', 'waiting') and currency <> invoice_currency), false)
            as has_other_currency,
        coalesce(
            bool_or(role = 'waiting' and $today - created_at::date <= $reconciliation_pending_days),
            false
        ) as is_fresh,
        min(open_dispute_at) filter (role = 'settled') as open_dispute_at,
        min(failed_refund_at) filter (role = 'settled') as failed_refund_at,
        coalesce(bool_or(has_lost_dispute) filter (role = 'settled'), false) as has_lost_dispute,
        coalesce(bool_or(has_won_dispute) filter (role = 'settled'), false) as has_won_dispute,
        list(charge_words order by created_at, charge_id) filter (role = 'settled') as settled_list,
        list(charge_words order by created_at, charge_id) filter (role = 'waiting') as waiting_list,
        list(charge_words order by created_at, charge_id) filter (role = 'dead') as dead_list,
        list(charge_words order by created_at, charge_id)
            filter (role in ('settled', 'waiting') and currency <> invoice_currency)
            as other_currency_list,
        list(refund_words order by created_at, charge_id)
            filter (role = 'settled' and refund_words is not null) as refund_list,
        list(charge_id || ': ' || failed_words order by created_at, charge_id)
            filter (role = 'settled' and failed_refund_at is not null) as failed_list,
        list(charge_id || ': ' || open_words order by created_at, charge_id)
            filter (role = 'settled' and open_words is not null) as open_list,
        list(charge_id || ': ' || lost_words order by created_at, charge_id)
            filter (role = 'settled' and lost_words is not null) as lost_list,
        list(charge_id || ': ' || won_words order by created_at, charge_id)
            filter (role = 'settled' and won_words is not null) as won_list,
        list(charge_id || ': ' || inquiry_words order by created_at, charge_id)
            filter (inquiry_words is not null) as inquiry_list,
    from linked
    group by 1
),

foreign_claims as (  -- a live charge of the invoice that claims another workspace
    select
        linked.invoice_id,
        list(
            distinct 'charge ' || charge_id || ' says ' || claims.workspace_id
            order by 'charge ' || charge_id || ' says ' || claims.workspace_id
        ) as workspace_list,
    from linked
    inner join staging.charge_claims as claims using (charge_id)
    where linked.role in ('settled', 'waiting')
        and claims.workspace_id <> linked.invoice_workspace_id
    group by 1
),

names as (  -- what a charge names, each id once, by its strongest rung
    select
        charge_id,
        infery_invoice_id,
        arg_min(matched_by, rung) as matched_by,
        min(rung) as rung,
    from staging.charge_claims
    where infery_invoice_id is not null
    group by 1, 2
),

named as (
    select
        charge_id,
        count(*) as named_count,
        min(infery_invoice_id) as one_invoice_id,
        list(
            infery_invoice_id || ' by ' || replace(matched_by, '_', ' ')
            order by rung, infery_invoice_id
        ) as name_list,
        bool_or(matched_by = 'subscription_metadata') as has_subscription_metadata,
    from names
    group by 1
),

conflicts as (  -- the contradictions that name an invoice
    select
        invoice_charges.invoice_id,
        list(
            charge_words || ' names ' || array_to_string(name_list, ', ')
            order by charged_at, charge_id
        ) as conflict_list,
        bool_or(has_subscription_metadata) as has_subscription_metadata,
    from marts.invoice_charges
    inner join named using (charge_id)
    inner join staging.charge_money using (charge_id)
    where role = 'conflict'
    group by 1
),

tests as (  -- charges of the other mode that name an invoice
    select
        infery_invoice_id,
        list(charge_words order by created_at, charge_id) as test_list,
    from staging.charges
    inner join staging.charge_money using (charge_id)
    where state = 'test' and infery_invoice_id is not null
    group by 1
),

claimed_workspaces as (
    select charge_id, arg_min(workspace_id, (rung, workspace_id)) as workspace_id,
    from staging.charge_claims
    where workspace_id is not null
    group by 1
),

invoice_rows as (
    select
        invoices.infery_invoice_id as item_id,
        'invoice' as item_kind,
        invoices.infery_invoice_id as invoice_id,
        invoices.workspace_id,
        invoices.kind,
        invoices.status as gateway_status,
        coalesce(linked_sums.stripe_invoice_id, invoices.stripe_invoice_id) as stripe_invoice_id,
        coalesce(linked_sums.payment_intent_id, invoices.payment_intent_id) as payment_intent_id,
        invoices.currency,
        invoices.issued_at as began_at,
        invoices.total_minor,
        null::bigint as billed_minor,
        case
            when invoices.status in ('draft', 'void', 'uncollectible') then 0
            else greatest(invoices.total_minor, 0)
        end as expected_minor,
        coalesce(charged_minor, 0) as charged_minor,
        0::bigint as out_of_band_minor,
        coalesce(refunded_minor, 0) as refunded_minor,
        coalesce(disputed_minor, 0) as disputed_minor,
        coalesce(charge_count, 0) as charge_count,
        invoices.status in ('draft', 'void', 'uncollectible') as is_void,
        conflict_list is not null as is_contradicted,
        workspace_list is not null as has_other_workspace,
        coalesce(has_other_currency, false) as has_other_currency,
        coalesce(is_fresh, false) as is_fresh,
        $today - invoices.issued_at::date <= $reconciliation_settle_days as is_young,
        coalesce(has_lost_dispute, false) as has_lost_dispute,
        coalesce(has_won_dispute, false) as has_won_dispute,
        coalesce(kept_charge_count, 0) as kept_charge_count,
        linked_sums.* exclude (
            invoice_id, stripe_invoice_id, payment_intent_id, charged_minor, refunded_minor,
            disputed_minor, charge_count, has_other_currency, is_fresh, has_lost_dispute,
            has_won_dispute, kept_charge_count
        ),
        workspace_list,
        conflict_list,
        test_list,
        coalesce(has_subscription_metadata, false) as has_subscription_metadata,
    from staging.invoices
    left join linked_sums on linked_sums.invoice_id = invoices.infery_invoice_id
    left join foreign_claims on foreign_claims.invoice_id = invoices.infery_invoice_id
    left join conflicts on conflicts.invoice_id = invoices.infery_invoice_id
    left join tests using (infery_invoice_id)
),

spoken_for as (
    select distinct charge_id from marts.invoice_charges where role <> 'conflict'
),

charge_rows as (
    select
        charges.charge_id as item_id,
        'charge' as item_kind,
        charges.charge_id,
        case
            when charges.state = 'test' then charges.infery_invoice_id
            when named_count = 1 then one_invoice_id
        end as claimed_invoice_id,
        coalesce(charges.workspace_id, claimed_workspaces.workspace_id) as workspace_id,
        charges.state as charge_state,
        charges.stripe_invoice_id,
        charges.payment_intent_id,
        charges.currency,
        charges.created_at as began_at,
        0::bigint as total_minor,
        0::bigint as expected_minor,
        case when state = 'settled' then charges.amount_captured_minor else 0 end as charged_minor,
        0::bigint as out_of_band_minor,
        case when state = 'settled' then refunded_minor else 0 end as refunded_minor,
        case when state = 'settled' then disputed_minor else 0 end as disputed_minor,
        (case when state = 'settled' then 1 else 0 end)::integer as charge_count,
        state in ('settled', 'waiting') and coalesce(named_count, 0) > 1 as is_contradicted,
        state = 'waiting' and $today - charges.created_at::date <= $reconciliation_pending_days
            as is_fresh,
        state = 'settled' and $today - charges.created_at::date <= $reconciliation_settle_days
            as is_young,
        case when state = 'settled' then open_dispute_at end as open_dispute_at,
        case when state = 'settled' then failed_refund_at end as failed_refund_at,
        state = 'settled' and has_lost_dispute as has_lost_dispute,
        state = 'settled' and has_won_dispute as has_won_dispute,
        [charge_words] as settled_list,
        [refund_words] as refund_list,
        [failed_words] as failed_list,
        [open_words] as open_list,
        [lost_words] as lost_list,
        [won_words] as won_list,
        case when inquiry_words is not null then [inquiry_words] end as inquiry_list,
        name_list as conflict_list,
        coalesce(has_subscription_metadata, false) as has_subscription_metadata,
    from staging.charges
    inner join staging.charge_money using (charge_id)
    anti join spoken_for using (charge_id)
    left join named using (charge_id)
    left join claimed_workspaces using (charge_id)
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
    matched_by,  -- the weakest rung among the settled linked charges, else all
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
    coalesce(is_void, false) as is_void,  -- one side says that nothing is owed
    is_contradicted,
    coalesce(has_other_workspace, false) as has_other_workspace,
    coalesce(has_other_currency, false) as has_other_currency,
    is_fresh,
    is_young,
    open_dispute_at,  -- the earliest open dispute
    failed_refund_at,  -- the earliest failed refund of a charge where it is not made good
    has_lost_dispute,
    has_won_dispute,
    has_subscription_metadata,  -- the contradiction comes from subscription metadata
    settled_list,  -- words for the reason, here and below
    waiting_list,
    dead_list,
    test_list,
    refund_list,
    failed_list,
    open_list,
    lost_list,
    won_list,
    inquiry_list,
    other_currency_list,
    workspace_list,
    conflict_list,
from items
