import multiprocessing as mp, os

def square(x):
    return x * x

if __name__ == "__main__":
    mp.set_start_method("spawn")
    with mp.Pool(2) as pool:
        print(pool.map(square, range(5)))
    q = mp.Queue()
    p = mp.Process(target=q.put, args=("hi",))
    p.start(); print(q.get()); p.join(); print(p.exitcode)
