-- Since when no task of the queue is started; null while it is not paused.
ALTER TABLE queues ADD COLUMN paused_at timestamptz;
