-- How closely the directory wants a subject to be watched, where it says so.
--
-- The budgets' exceed_percent, floor_credits and sensitivity, each for itself. Where several
-- budgets of one subject say different things the most watchful speaks: who asked to be told of
-- 20 % is not helped by another's 50.
--
-- grain: workspace_id?, scope, subject_id
select
    workspace_id,
    scope,  -- workspace, key, model or member
    if(scope = 'workspace', workspace_id, subject_id) as subject_id,
    min(exceed_percent) as exceed_percent,  -- the page's X; null: not said
    min(floor_credits) as floor_credits,  -- an excess below it is no alert; null: not said
    case min(array_position(['high', 'normal', 'low'], sensitivity))
        filter (where sensitivity is not null)
        when 1 then 'high'
        when 2 then 'normal'
        when 3 then 'low'
    end as sensitivity,  -- low, normal or high; null: not said
from staging.budgets
where if(scope = 'workspace', workspace_id, subject_id) is not null
    and (exceed_percent is not null or floor_credits is not null or sensitivity is not null)
group by 1, 2, 3
