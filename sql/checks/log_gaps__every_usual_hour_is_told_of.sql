-- The logs of a source have the requests of every hour that usually has some. A warning: what is
-- missing must be fetched from the gateway, and no table is wrong because of it.
--
-- severity: warning
select
    started_at::date as usage_date,
    'marts.log_gaps' as table_name,
    'source ' || source_name || ' tells of the '
    || hour_count || if(hour_count = 1, ' hour from ', ' hours from ')
    || strftime(started_at, '%Y-%m-%d %H:%M') || ' to '
    || if(is_silent, 'now', strftime(ended_at, '%Y-%m-%d %H:%M'))
    || ' UTC, which the gateway deletes from ' || strftime(recoverable_until, '%Y-%m-%d')
    || ' on (' || days_left || if(days_left = 1, ' day left', ' days left')
    || if(count(*) over () > 1, ', the most urgent of ' || count(*) over () || ' gaps)', ')')
        as claim,
    'some ' || usual_count || ' requests or more' as expected,
    request_count::varchar as found,
from marts.log_gaps
order by started_at, source_name
