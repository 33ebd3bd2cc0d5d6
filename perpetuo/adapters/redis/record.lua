-- record: what is known of a call.   KEYS  call   ARGV  now run
return redis.call('GET', KEYS[1])
