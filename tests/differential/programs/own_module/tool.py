def f(): return 'tool'
