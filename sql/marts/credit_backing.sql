-- What money stands behind the pack that an invoice granted, or what money was kept without a pack
-- for it.
--
-- facts/reconciliation.md, section 8. Reconciliation never removes a grant that the gateway made:
-- it says what backs it. A pack is split into what is backed, promotional, held, lost and unbacked;
-- the five sum to the grant. Money without a grant is told in money, and in the pack it would buy.
--
-- grain: item_id
with returned as (
    select
        invoice_id,
        coalesce(sum(share_credits) filter (outcome in ('counted', 'lost')), 0) as lost_credits,
        coalesce(
            sum(share_credits) filter (outcome = 'open' and $credits_dispute = 'hold'), 0
        ) as held_credits,
    from staging.credit_returns
    group by 1
),

items as (
    select
        rows.*,
        invoices.status as gateway_status,
        coalesce(invoices.credits, 0) as pack_credits,
        coalesce(invoices.status = 'paid' and invoices.credits > 0, false) as is_granted,
        coalesce(lost_credits, 0) as lost_credits,
        coalesce(held_credits, 0) as held_credits,
        $today - invoices.issued_at::date > $reconciliation_settle_days as is_settled,
    from marts.invoice_reconciliation as rows
    left join staging.invoices as invoices on invoices.infery_invoice_id = rows.invoice_id
    left join returned on returned.invoice_id = rows.invoice_id
),

judged as (
    select
        *,
        case
            when not is_granted then case
                when status in ('void_but_paid', 'missing_in_gateway')
                    or (
                        gateway_status = 'open' and is_settled and standing = 'agrees'
                        and kept_minor > 0
                    )
                    then 'ungranted'
            end
            when status = 'zero_amount' then 'promotional'
            when status in ('in_flight', 'amount_mismatch', 'partially_paid') then 'pending'
            when status in (
                'missing_in_stripe', 'metadata_conflict', 'workspace_mismatch',
                'currency_mismatch', 'void_but_paid'
            ) then 'unbacked'
            when status = 'disputed_open' and held_credits > 0 then 'held'
            when status = 'dispute_lost' or lost_credits = pack_credits then 'lost'
            else 'backed'
        end as backing,
        pack_credits - lost_credits - held_credits as rest_credits,
    from items
)

select
    item_id,  -- as in marts.invoice_reconciliation
    item_kind,  -- invoice | charge
    invoice_id,
    workspace_id,
    status,  -- of the reconciliation
    backing,  -- backed | promotional | pending | held | lost | unbacked | ungranted
    (case when is_granted then pack_credits else 0 end)::decimal(38, 9)
        as granted_credits,  -- the whole pack; 0 where none was granted
    (case when backing in ('backed', 'held', 'lost') then rest_credits else 0 end)
        ::decimal(38, 9) as backed_credits,  -- for money that is kept
    (case when backing = 'promotional' then rest_credits else 0 end)::decimal(38, 9)
        as promotional_credits,  -- nothing was owed for them
    (case when is_granted then held_credits else 0 end)::decimal(38, 9)
        as held_credits,  -- while a dispute is open
    (case when is_granted then lost_credits else 0 end)::decimal(38, 9)
        as lost_credits,  -- their money went back
    (case when backing in ('pending', 'unbacked') then rest_credits else 0 end)::decimal(38, 9)
        as unbacked_credits,  -- granted, and no money for them yet
    case when backing = 'ungranted' and item_kind = 'invoice' then pack_credits::decimal(38, 9)
    end as ungranted_credits,  -- the pack that was paid and not granted; null: none is named
    currency,
    case when backing in ('pending', 'unbacked') then expected_minor - kept_minor else 0 end
        as unbacked_minor,  -- what is missing behind an unbacked grant
    case when backing = 'ungranted' then kept_minor else 0 end
        as ungranted_minor,  -- money kept without a grant
from judged
where backing is not null
