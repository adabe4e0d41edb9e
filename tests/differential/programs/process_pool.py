from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

def cube(x):
    return x ** 3

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool, ThreadPoolExecutor(2) as threads:
        print(list(pool.map(cube, range(4))), list(threads.map(cube, range(4))))
