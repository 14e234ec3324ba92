-- What stands behind a gateway invoice in Stripe, or behind a charge that belongs to no invoice:
-- one status each.
--
-- facts/reconciliation.md is the specification: section 5 gives the statuses in this order, the
-- first that holds is the status, and every invoice and every charge is in exactly one. Tolerance
-- is zero.
--
-- grain: item_id
-- sorted by: began_at
with dated_items as (
    select
        *,
        coalesce($today - last_waiting_at::date <= $reconciliation_pending_days, false) as is_fresh,
        $today - began_at::date <= $reconciliation_settle_days as is_young,
    from staging.reconciliation_items
),

judged as (
    select
        *,
        case
            when item_kind = 'charge' then case
                when charge_state = 'test' then 'test_mode'
                when is_contradicted then 'metadata_conflict'
                when open_dispute_at is not null then 'disputed_open'
                when has_lost_dispute then 'dispute_lost'
                when failed_refund_at is not null then 'refund_failed'
                when refunded_minor > 0 and held_minor <= 0 then 'refunded_full'
                when is_fresh or (charge_state = 'settled' and is_young) then 'in_flight'
                when charge_state = 'dead' then 'zero_amount'
                else 'missing_in_gateway'
            end
            -- who is meant
            when is_contradicted then 'metadata_conflict'
            when has_other_workspace then 'workspace_mismatch'
            when has_other_currency then 'currency_mismatch'
            -- money at risk now
            when (is_void or is_all_void) and kept_minor > 0 then 'void_but_paid'
            when open_dispute_at is not null then 'disputed_open'
            when has_lost_dispute then 'dispute_lost'
            when failed_refund_at is not null then 'refund_failed'
            -- is it all undone
            when refunded_minor > 0 and received_minor >= expected_minor and held_minor <= 0
                then 'refunded_full'
            -- too little or too much
            when billed_minor <> total_minor then 'amount_mismatch'
            when gateway_status = 'paid' and received_minor > 0 and received_minor < expected_minor
                and not is_fresh then 'amount_mismatch'
            when held_minor > expected_minor and kept_charge_count >= 2
                and held_minor - least_net_minor >= expected_minor then 'duplicate_charge'
            when held_minor > expected_minor then 'overpaid'
            when received_minor < expected_minor
                and (is_fresh or (received_minor = 0 and is_young)) then 'in_flight'
            when expected_minor > 0 and received_minor = 0 then 'missing_in_stripe'
            when received_minor > 0 and received_minor < expected_minor then 'partially_paid'
            when expected_minor = 0 and received_minor = 0 then 'zero_amount'
            -- how the right amount came about
            when held_minor < expected_minor then 'refunded_partial'
            when out_of_band_minor > 0 then 'paid_out_of_band'
            when has_won_dispute then 'dispute_won'
            when is_all_first_rung then 'matched'
            else 'matched_by_fallback'
        end as status,
    from dated_items
),

standings as (
    select
        *,
        case
            when status in ('in_flight', 'partially_paid') then 'waits'
            when status in (
                'matched', 'matched_by_fallback', 'paid_out_of_band', 'refunded_full',
                'refunded_partial', 'dispute_lost', 'dispute_won', 'zero_amount', 'test_mode'
            ) then 'agrees'
            else 'needs_person'
        end as standing,
    from judged
),

dated as (
    select
        *,
        case
            when standing = 'agrees' then null
            when status = 'disputed_open' then open_dispute_at
            when status = 'refund_failed' then failed_refund_at
            else began_at
        end as opened_at,
    from standings
),

topics as (  -- a column for each topic that a reason may tell of
    select
        item_id,
        max(words) filter (topic = 'settled') as settled_words,
        max(words) filter (topic = 'waiting') as waiting,
        max(words) filter (topic = 'dead') as dead,
        max(words) filter (topic = 'test') as tested,
        max(words) filter (topic = 'refunds') as refunds,
        max(words) filter (topic = 'failed_refunds') as failed_refunds,
        max(words) filter (topic = 'open_disputes') as open_disputes,
        max(words) filter (topic = 'lost_disputes') as lost_disputes,
        max(words) filter (topic = 'won_disputes') as won_disputes,
        max(words) filter (topic = 'inquiries') as inquiries,
        max(words) filter (topic = 'bills') as bills,
        max(words) filter (topic = 'void_bills') as void_bills,
        max(words) filter (topic = 'other_currencies') as other_currencies,
        max(words) filter (topic = 'other_workspaces') as other_workspaces,
        max(words) filter (topic = 'conflicts') as conflicts,
    from staging.reconciliation_words
    group by 1
),

facts as (
    select
        dated.*,
        topics.* exclude (item_id),
        case when currencies.currency is null then 2 else places end as places,
        coalesce(
            status in ('matched', 'matched_by_fallback') and topics.item_id is null
            and told_minor = total_minor and expected_minor = total_minor
            and told_charge_id is not null, false
        ) as is_plain,  -- one charge paid the one bill, and there is nothing to tell beside it
        case
            when status <> 'matched_by_fallback' then ''
            when matched_by = 'charge_invoice_id'
                then ', matched by the invoice id alone: a charge names no workspace'
            else ', matched by ' || replace(matched_by, '_', ' ')
        end as by_what,
    from dated
    left join staging.currencies as currencies using (currency)
    left join topics using (item_id)
),

-- Most of these are plain, too: each expression spares them by itself.
worded as (  -- amounts in major units
    select
        *,
        in_words(total_minor, currency, places) as total,
        case
            when not is_plain
                then list_transform(
                    [
                        told_minor, expected_minor, received_minor, refunded_minor, disputed_minor,
                        held_minor, kept_minor, expected_minor - received_minor,
                        held_minor - expected_minor, billed_minor, out_of_band_minor
                    ],
                    lambda minor: in_words(minor, currency, places)
                )
        end as amounts,
    from facts
),

told as (  -- what the money came by
    select
        *,
        case
            when not is_plain
                then coalesce(
                    settled_words,
                    told_charge_id || ' (' || amounts[1] || ', '
                    || strftime(told_at, '%Y-%m-%d') || ')'
                )
        end as settled,
    from worded
),

named as (  -- the parts of the sentences; each is null where there is nothing to say
    select
        *,
        case when not is_plain then amounts[2] end as expected,
        case when not is_plain then amounts[3] end as received,
        case when not is_plain then amounts[4] end as refunded,
        case when not is_plain then amounts[5] end as disputed,
        case when not is_plain then amounts[6] end as held,
        case when not is_plain then amounts[7] end as kept,
        case when not is_plain then amounts[8] end as lacking,
        case when not is_plain then amounts[9] end as excess,
        case when not is_plain then amounts[10] end as billed,
        case
            when is_plain then null
            when out_of_band_minor = 0 then settled
            else concat_ws(
                ' and ', settled,
                amounts[11] || ' past Stripe' || coalesce(' (' || bills || ')', '')
            )
        end as means,
        case
            when is_plain then null
            when item_kind = 'invoice' then 'invoice ' || item_id || ' over ' || total
            else 'no known invoice'
        end as bill,
        case when not is_plain then 'Invoice ' || item_id || ' over ' || total end as opening,
        case
            when is_plain then null
            when item_kind = 'charge' then item_id || ': '
            else ''
        end as of_charge,
        case when not is_plain then strftime(began_at, '%Y-%m-%d') end as began_on,
        case
            when is_plain then null
            when is_void then 'The gateway says ' || gateway_status
            else 'Stripe says void (' || void_bills || ')'
        end as voided,
    from told
),

reasoned as (
    select
        *,
        case when is_plain
            then
                concat(
                    'Invoice ', item_id, ' over ', total, ' is paid by ', told_charge_id, ' (',
                    total, ', ', strftime(told_at, '%Y-%m-%d'), ')', by_what, '.'
                )
            else case
            when status = 'test_mode' then
                format('Test charge {} moves no money', settled)
                || coalesce('; its metadata names ' || claimed_invoice_id, '')
            when status = 'metadata_conflict' and item_kind = 'charge' then
                format('Charge {} names more than one invoice ({})', settled, conflicts)
                || ', so it belongs to none until its metadata is mended'
            when status = 'metadata_conflict' then
                format('{} is contradicted: {}', opening, conflicts)
                || '; the metadata must say which invoice is meant'
            when status = 'workspace_mismatch' then
                format('{} belongs to workspace {}, but ', opening, workspace_id)
                || format('{}; {} came', other_workspaces, received)
            when status = 'currency_mismatch' then
                format('{} was charged in another currency: {}', opening, other_currencies)
            when status = 'void_but_paid' then
                format('{}, so nothing is owed on {}', voided, bill)
                || format(', but {} came by {} and {} is kept', received, means, kept)
                || ': refund it, or reissue the invoice'
            when status = 'disputed_open' then
                format('A dispute is open on charge {}{}', of_charge, open_disputes)
                || format('; {} of the {} received for {} is at risk', disputed, received, bill)
                || ': answer it in Stripe'
            when status = 'dispute_lost' then
                format('A dispute was lost on charge {}{}', of_charge, lost_disputes)
                || format('; of the {} received for {}, {} is left', received, bill, kept)
            when status = 'refund_failed' then
                'A refund failed and was not made good on charge ' || of_charge || failed_refunds
                || format('; of the {} received for {}, ', received, bill)
                || case
                    when refunded_minor > 0 then format('only {} went back ({})', refunded, refunds)
                    else 'nothing went back'
                end
                || ': refund it again, or pay it out otherwise'
            when status = 'refunded_full' then
                format('All of the {} that came by {} for {}', received, means, bill)
                || format(' was refunded: {}', refunds)
            when status = 'amount_mismatch' and billed_minor <> total_minor then
                format('The two bills differ: the gateway''s {} against {}', bill, billed)
                || ' of Stripe''s'
                || coalesce(' (' || bills || ')', '')
                || case when received_minor = 0 then '; nothing came'
                    else format('; {} came by {}', received, means)
                end
            when status = 'amount_mismatch' then
                format('The gateway says that {} is paid, but only {} of ', bill, received)
                || format('{} came by {}: {} is missing', expected, means, lacking)
            when status = 'duplicate_charge' then
                format('{} was charged more than once: {} brought {}', opening, means, received)
                || case
                    when refunded_minor > 0 then format(', {} went back ({})', refunded, refunds)
                    else ''
                end
                || format('; {} too much is held: refund the charge that is one too many', excess)
            when status = 'overpaid' then
                format('For {} Stripe should hold {}, but holds {} from ', bill, expected, held)
                || means
                || case
                    when refunded_minor > 0 then format(' after refunds ({})', refunds)
                    else ''
                end
                || format(': {} too much', excess)
            when status = 'in_flight' and item_kind = 'charge' then
                case
                    when charge_state = 'waiting'
                        then format('Charge {} is pending or not captured yet', settled)
                    else format('Charge {} is new', settled)
                end
                || ', and the gateway shows no invoice for it yet'
                || coalesce('; it names ' || claimed_invoice_id, '')
            when status = 'in_flight' and is_fresh then
                format('{} waits for charge {}', opening, waiting)
                || format('; {} of {} has come', received, expected)
            when status = 'in_flight' then
                format('{} was issued on {}', opening, began_on)
                || ' and no charge has settled yet, which may take some days'
            when status = 'missing_in_stripe' then
                format('{}, issued on {}, is {} for the gateway', opening, began_on, gateway_status)
                || ', but no settled charge in Stripe belongs to it'
                || coalesce('; Stripe''s bill: ' || bills, '; Stripe''s bill: ' || void_bills, '')
                || coalesce('; waiting for too long: ' || waiting, '')
                || coalesce('; declined or released: ' || dead, '')
                || coalesce('; named by a test charge, which moves no money: ' || tested, '')
            when status = 'partially_paid' then
                format('{} of the {} owed on {} came by {}', received, expected, bill, means)
                || format('; {} is still to come, and the gateway says ', lacking) || gateway_status
            when status = 'zero_amount' and item_kind = 'charge' then
                format('Charge {} was declined or released: no money moved', settled)
                || coalesce(
                    format('; it names {}, which is no known invoice', claimed_invoice_id), ''
                )
            when status = 'zero_amount' and is_void then
                format('The gateway says {}: nothing is owed on {}', gateway_status, bill)
                || ', and nothing came'
            when status = 'zero_amount' then
                format('Nothing is owed on {}, and nothing came', bill)
            when status = 'missing_in_gateway' then
                format('Charge {} belongs to no gateway invoice: its metadata names ', settled)
                || coalesce(claimed_invoice_id || ', which the gateway does not know', 'none')
                || case
                    when charge_state = 'waiting' then '; it waits since ' || began_on
                    else ''
                end
                || case
                    when refunded_minor > 0 then format('; {} was refunded', refunds)
                    else ''
                end
                || coalesce(format('; a dispute over it was won: {}', won_disputes), '')
            when status = 'refunded_partial' then
                format('Of the {} that came by {} for {}', received, means, bill)
                || format(', {} was refunded ({}) and {} is held', refunded, refunds, held)
            when status = 'paid_out_of_band' then
                format('{} is paid by {}', opening, means)
            when status = 'dispute_won' then
                format('{} is paid by {}', opening, means)
                || format(', and the dispute over it was won: {}', won_disputes)
            else
                opening || ' is paid by ' || settled || by_what
                || case
                    when refunded_minor > 0
                        then format('; the {} that was too much was refunded: ', refunded)
                            || refunds
                    else ''
                end
        end
        || '.'
        || case
            when not is_void and expected_minor < total_minor and status <> 'metadata_conflict'
                then ' Credit notes or the customer''s balance leave '
                    || format('{} of it to pay.', expected)
            else ''
        end
        || case
            when status = 'metadata_conflict'
                and contains(conflicts, 'by subscription metadata')
                then ' Subscription metadata keeps an earlier invoice''s id and is set wrongly on'
                    || ' every renewal: set the id on the invoice instead.'
            else ''
        end
        || case
            when item_kind = 'charge' or status = 'missing_in_stripe' then ''
            else coalesce(format(' Declined or released: {}.', dead), '')
                || coalesce(format(' A test charge names it too: {}.', tested), '')
        end
        || coalesce(format(' An inquiry moved no money: {}.', inquiries), '')
        end as reason,
    from named
),

plain as (
    select
        plain_invoices.*,
        in_words(
            total_minor, currency, case when currencies.currency is null then 2 else places end
        ) as total,
        concat(
            'Invoice ', item_id, ' over ', total, ' is paid by ', told_charge_id, ' (', total, ', ',
            strftime(told_at, '%Y-%m-%d'), ')',
            case
                when status = 'matched' then '.'
                else ', matched by the invoice id alone: a charge names no workspace.'
            end
        ) as reason,
    from staging.plain_invoices
    left join staging.currencies as currencies using (currency)
),

items as (
    select * from reasoned
    union all by name
    select * from plain
)

select
    item_id,  -- the invoice id, or the charge id
    item_kind,  -- invoice | charge
    invoice_id,  -- the gateway's infery_invoice_id; null on a charge row
    charge_id,  -- null on an invoice row: see marts.invoice_charges
    claimed_invoice_id,  -- charge rows: the one invoice its metadata names, known or not
    workspace_id,  -- the invoice's; on a charge row what its metadata claims
    kind,  -- subscription | topup; null on a charge row
    stripe_invoice_id,  -- of the Stripe invoice tied to it, else the gateway's reference
    payment_intent_id,  -- of the newest linked charge, else the gateway's reference
    status,  -- one of the 22 statuses
    standing,  -- agrees | waits | needs_person
    matched_by,  -- the weakest rung among the settled linked charges, else all
    currency,  -- of every _minor beside it
    total_minor,  -- the gateway's bill; 0 on a charge row
    billed_minor,  -- Stripe's bill; null where there is none
    expected_minor,  -- what charges should bring
    charged_minor,  -- what came through charges
    out_of_band_minor,  -- what came past Stripe
    refunded_minor,  -- given back
    disputed_minor,  -- taken or held by disputes
    kept_minor,  -- what is left; may be negative
    difference_minor,  -- what is unexplained; positive: too much money
    charge_count,  -- settled linked charges
    reason,  -- one or two sentences for a finance person: amounts, ids, the cause
    began_at,  -- when the invoice was issued, or the charge created
    opened_at,  -- null when it agrees
    ($today - opened_at::date)::integer as age_days,
from items
